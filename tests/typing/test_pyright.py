"""What a user's type checker says about stepwell: right code passes, mistakes are reported.

`good_*.py` in this directory must be clean under pyright's strict mode. In `bad_*.py` each line
that ends in `# error: <rule>` must be reported with exactly that rule (two rules on one line:
`# error: ruleA, ruleB`), and no other line may be reported at all.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

HERE = Path(__file__).parent
SRC = HERE.parent.parent / "src"

MARK = re.compile(r"#\s*error:\s*(?P<rules>[A-Za-z]+(?:\s*,\s*[A-Za-z]+)*)\s*$")

# Where and what: (file name, line counted from 1, rule).
Report = tuple[str, int, str]


class _Position(TypedDict):
    line: int


class _Range(TypedDict):
    start: _Position


class _Diagnostic(TypedDict, total=False):
    file: str
    severity: str
    rule: str
    range: _Range


class _Summary(TypedDict):
    filesAnalyzed: int


class _Output(TypedDict):
    generalDiagnostics: list[_Diagnostic]
    summary: _Summary


def expected(file: Path) -> list[Report]:
    """The reports that the marks in `file` ask for, in order."""
    found: list[Report] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if mark := MARK.search(line):
            found += [(file.name, number, rule.strip()) for rule in mark["rules"].split(",")]
    return sorted(found)


def reported(files: list[Path], scratch: Path) -> list[Report]:
    """What pyright, strict, says about `files`: errors and warnings, in order.

    One run serves all files; pyright's start costs more than the files do.
    """
    # Copies, because pyright takes only what lies beside its configuration, and the repository's
    # own one leaves the mistakes out.
    project = scratch / "project"
    project.mkdir()
    for file in files:
        shutil.copy(file, project)
    (project / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "extraPaths": [str(SRC)],
                "typeCheckingMode": "strict",
                "pythonVersion": "3.11",
            }
        ),
        encoding="utf-8",
    )
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson"),
            *("--project", str(project), "--pythonpath", sys.executable),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    # 0: clean, 1: something reported; anything else means that nothing was checked.
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    output: _Output = json.loads(ran.stdout)
    assert output["summary"]["filesAnalyzed"] == len(files), ran.stdout + ran.stderr
    return sorted(
        (
            Path(found.get("file", "?")).name,
            found["range"]["start"]["line"] + 1 if "range" in found else 0,
            found.get("rule", "syntax"),
        )
        for found in output["generalDiagnostics"]
        if found.get("severity") != "information"
    )


def test_right_code_is_clean_and_each_mistake_is_reported(tmp_path: Path) -> None:
    good, bad = sorted(HERE.glob("good_*.py")), sorted(HERE.glob("bad_*.py"))
    assert bool(good) == bool(bad), "right code without mistakes, or the reverse, proves little"
    for file in good:
        assert not expected(file), f"{file.name} marks mistakes but claims to be right"
    for file in bad:
        assert expected(file), f"{file.name} marks no mistake"
    if good or bad:
        wanted = sorted(report for file in bad for report in expected(file))
        assert reported([*good, *bad], tmp_path) == wanted


def test_the_check_itself_sees_a_mistake_and_a_mark_too_many(tmp_path: Path) -> None:
    sample = tmp_path / "bad_sample.py"
    sample.write_text(
        'count: int = "one"  # error: reportAssignmentType\n'
        "right: int = 1  # error: reportAssignmentType\n"
        "def untyped(x): ...\n",
        encoding="utf-8",
    )
    assert expected(sample) == [
        ("bad_sample.py", 1, "reportAssignmentType"),
        ("bad_sample.py", 2, "reportAssignmentType"),
    ]
    lines = [line for _, line, _ in reported([sample], tmp_path)]
    assert lines == [1, 3, 3]
