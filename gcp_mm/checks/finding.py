"""What a check of a config has to say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        status: 'ok', 'warning' (the run would start, and may not be what was meant), 'error' (it
            would not start, or fail later) or 'skipped' (there was nothing to check, or no way to).
        text: what was found, in words, and for a warning or an error what to do.
    """

    status: str
    text: str


def warnings_in(findings: list[Finding]) -> list[str]:
    """Texts of the warnings among findings."""
    return [finding.text for finding in findings if finding.status == 'warning']


def errors_in(findings: list[Finding]) -> list[str]:
    """Texts of the errors among findings."""
    return [finding.text for finding in findings if finding.status == 'error']
