"""`idgr compare`: whether results differ by more than chance, tested user by user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from idgr.errors import UsageError, check_utf8
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDOUT, write_json
from idgr.options import Seed, StageOptions, argument, option
from idgr.progress import log
from idgr.stages.options import OutputFile, run_info

METRICS = ["hr@5", "ndcg@5", "hr@10", "ndcg@10"]


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Test whether results differ from a reference: Student's t, Fisher's randomisation, bootstrap interval.

    Example: idgr compare runs/sasrec/users.jsonl runs/idgr/users.jsonl -o significance.json
    """

    results: list[str] = argument("Two or more files of `idgr eval --per-user`.", "USERS…")
    reference: str | None = option("The file that the others are held against (default: the first).", None)
    metrics: list[str] | None = option(
        "A column of the files; may be repeated (default: HR and NDCG at 5, 10).", None, flags=("--metric", "-m")
    )
    correction: Literal["holm", "bonferroni", "none"] = option(
        "For many comparisons: over all systems and metrics, for each kind of test.", "holm"
    )
    resamples: int = option("Of randomisation test and bootstrap, each.", 9999, at_least=99, at_most=10**9)
    level: float = option("Confidence of the difference's interval.", 0.95, at_least=0.5, at_most=0.9999)
    interval: Literal["percentile", "basic", "BCa"] = option(
        "Kind of bootstrap interval; BCa is slow for many users.", "percentile"
    )
    common: bool = option("Test on the users that all files hold, instead of refusing others.", False)
    output: OutputFile = STDOUT
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.results) < 2:
            raise UsageError("one file has nothing to be compared with", "give two files or more")
        if len(set(self.results)) < len(self.results):
            raise UsageError("a file is named twice", "give each result once")
        if self.reference is not None and self.reference not in self.results:
            raise UsageError(
                f"--reference {self.reference} is none of the files", "name one of those that are compared"
            )


def run(options: Options) -> dict[str, Any]:
    """Test every file against the reference, and write the tests.

    Returns:
        The tests, `comparisons`, with how they were made.

    Raises:
        IdgrError: a file is not one of `idgr eval --per-user`, or its users or targets are not those of the reference.
    """
    check_file(options.output)
    check_utf8("names in the output", *options.results)

    from idgr.evaluation.comparison import compare_results, read_results
    from idgr.evaluation.significance import Resampling

    inputs = {f"results-{place}": file for place, file in enumerate(options.results, 1)}
    record = run_info("compare", options, results=None, **inputs)
    base = options.results[0] if options.reference is None else options.reference
    chosen = list(dict.fromkeys(options.metrics or METRICS))
    record.options |= {"reference": base, "metric": chosen}
    files = [base, *(file for file in options.results if file != base)]
    found = read_results(files, chosen, common=options.common)
    if found.left_out:
        log(f"compare: {found.left_out} users that not all files hold are left out")
    resampling = Resampling(options.resamples, options.seed, options.level, options.interval)
    rows = compare_results(found, base, resampling, options.correction)
    head = {"reference": base, "n_users": len(found.users), "users_left_out": found.left_out}
    record.check_unchanged()
    tests = {**head, **record.options, "comparisons": rows}
    del record.options["seed"]  # the record has a place of its own for it
    write_json(options.output, tests)
    record.write(options.output)
    return tests
