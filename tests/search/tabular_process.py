"""A search over made-up accuracies in processes of its own, to be killed.

python tabular_process.py alone|chief|worker FOLDER LOG SECONDS [HELD]
"""

import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # not in the process of the tests, which have a backend
    os.environ["KERAS_BACKEND"] = "numpy"  # KerasTuner would load TensorFlow otherwise

from landscapes import noisy, tiny_space

from bignas_tf.search import CoarseToFine, Points, Search, TabularEvaluator, parse_budgets, select

SPACE = tiny_space()
BUDGETS = parse_budgets("mmacs:0.06,0.1,0.2")
WORKERS = 2


class Logged(TabularEvaluator):
    """Writes down every evaluation that it begins, and takes its time.

    In the process that `KERASTUNER_TUNER_ID` calls worker1 the third waits until the file
    HELD, which gets the process id, is gone.
    """

    def __init__(self, log, seconds, held=None):
        super().__init__(noisy)
        self.log, self.seconds, self.held = log, seconds, held

    def score(self, genotypes):
        with self.log.open("a", encoding="utf-8") as file:
            file.writelines(f"{genotype.values}\n" for genotype in genotypes)
        name = os.environ.get("KERASTUNER_TUNER_ID")
        marker = self.held and self.held.with_name(f"{self.held.name}.once")
        if self.held and name == "worker1" and len(self.evaluated) == 2 and not marker.exists():
            marker.touch()
            self.held.write_text(str(os.getpid()), encoding="utf-8")
            while self.held.exists():
                time.sleep(0.01)
        time.sleep(self.seconds)
        return super().score(genotypes)


def new_search(folder):
    points = Points(SPACE, "table", folder / "points.jsonl")
    return Search(points, BUDGETS, strategy=new_strategy(), folder=folder, write_every=8)


def new_strategy():
    return CoarseToFine(SPACE, BUDGETS, seed=7, fine_candidates=5, fine_rounds=2)


def command(role, folder, log, seconds, *held):
    return [sys.executable, __file__, role, *map(str, (folder, log, seconds, *held))]


def new_chief(folder, log, seconds, *held):
    from bignas_tf.search.chief import Chief

    return Chief(workers=WORKERS, command=command("worker", folder, log, seconds, *held))


def main(role, folder, log, seconds, *held):
    folder, log, seconds = Path(folder), Path(log), float(seconds)
    evaluator = Logged(log, seconds, *map(Path, held))
    if role == "alone":
        select(SPACE, evaluator, BUDGETS, strategy=new_strategy(), folder=folder, progress=False)
    elif role == "chief":
        new_chief(folder, log, seconds, *held).run(new_search(folder))
    else:
        from bignas_tf.search.worker import work

        work(SPACE, evaluator)


if __name__ == "__main__":
    main(*sys.argv[1:])
