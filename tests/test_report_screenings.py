"""The predictor of a search, on the page."""

import pytest
from report_fixture import page_of, write_minimal_run

from bignas_tf.report.fields import ReportError
from bignas_tf.report.screenings import read_screenings
from bignas_tf.search.results import SCREENINGS, table

ROUNDS = [
    {"phase": "fine1", "results": 40, "tau": 0.61, "candidates": 64, "evaluated": 16,
     "screened": True, "fresh_tau": 0.25},
    {"phase": "fine2", "results": 56, "tau": 0.02, "candidates": 60, "evaluated": 15,
     "screened": False, "fresh_tau": None},
]  # fmt: skip


def test_the_page_tells_how_well_the_predictor_did_in_each_round(tmp_path):
    write_minimal_run(tmp_path)
    assert "Screening" not in page_of(tmp_path).tables
    (tmp_path / "select" / SCREENINGS).write_text(table(list(ROUNDS[0]), ROUNDS))
    rows = page_of(tmp_path).tables["Screening"]
    assert list(rows["fine1"].values())[-4:] == ["16 of 64", "yes", "0.61", "0.25"]
    assert list(rows["fine2"].values())[-4:] == ["15 of 60", "no", "0.02", "–"]


@pytest.mark.parametrize(("old", "new"), [("0.61", "2"), ("True", "maybe"), ("0.25", "x")])
def test_a_damaged_row_is_refused_with_its_place(tmp_path, old, new):
    path = tmp_path / SCREENINGS
    path.write_text(table(list(ROUNDS[0]), ROUNDS).replace(old, new))
    with pytest.raises(ReportError, match=r"screening.csv, line 2: .* must be"):
        read_screenings(path)
