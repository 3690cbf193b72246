from bignas_tf.machine import _cgroup_rooms, available_memory


def test_the_room_below_every_limit_of_a_control_group_counts(tmp_path):
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("0::/slurm/job_1\n")
    for group, limit, used in (("", None, 0), ("slurm", "max", 0), ("slurm/job_1", "1000", 700)):
        folder = root / group
        folder.mkdir()
        if limit is not None:
            (folder / "memory.max").write_text(f"{limit}\n")
            (folder / "memory.current").write_text(f"{used}\n")
            (folder / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert _cgroup_rooms(own, root) == [450]
    (root / "slurm" / "memory.max").write_text("100\n")
    assert _cgroup_rooms(own, root) == [250, 450]
    (root / "slurm" / "job_1" / "memory.current").write_text("2000\n")
    assert _cgroup_rooms(own, root) == [250, 0]
    own.write_text("4:memory:/old\n")
    assert _cgroup_rooms(own, root) == []
    assert _cgroup_rooms(tmp_path / "none", root) == []


def test_some_memory_is_available():
    assert available_memory() > 2**20
