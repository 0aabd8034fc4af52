"""`python tests/check_suite.py RUN/results.json`: does the generated suite leave room for methods to differ?

Conditions on the suite, not on the methods, on words that were not in training: the own-expert oracle lies
between .80 and .97, the base at least .12 lower, multitask at least .08 above the base on held-out pairs, and no
pair is answered above .85 by the best single expert.
"""

import json
import sys
from pathlib import Path


def faults(results: dict) -> list[str]:
    """One sentence for each condition that does not hold."""
    rows = {row["label"]: row for row in results["rows"]}

    def mean(label: str, split: str) -> float:
        return rows[label][split]["unseen"]["balanced_accuracy"]

    oracle, base = mean("own_expert", "held_in"), mean("base", "held_in")
    gain = mean("multitask", "held_out") - mean("base", "held_out")
    found = []
    if not 0.80 <= oracle <= 0.97:
        found.append(f"the own-expert oracle is at {oracle:.3f} on unseen words, expected .80 to .97")
    if base > oracle - 0.12:
        found.append(f"the base is at {base:.3f}, less than .12 below the oracle's {oracle:.3f}")
    if gain < 0.08:
        found.append(f"multitask is {gain:+.3f} from the base on pairs, expected at least +.08")
    for task, groups in rows["best_single(test)"]["tasks"].items():
        if groups["unseen"]["balanced_accuracy"] > 0.85:
            found.append(f"a single expert answers {task} at {groups['unseen']['balanced_accuracy']:.3f}")
    return found


def main(arguments: list[str]) -> int:
    """0 when all conditions hold."""
    found = faults(json.loads(Path(arguments[0]).read_text()))
    print("\n".join(found) or f"the suite of {arguments[0]} meets its conditions")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
