from tellmeter.serve.rules import Alert, Group, Recording
from tellmeter.serve.rules_text import rules_text

TEXT = """\
# Two lines
#
# of heading
groups:
  - name: tellmeter-figures
    rules:
      - record: job:a:rate5m
        expr: |-
          sum by (job) (
          rate(a_total{b="c: d"}[5m])
          )
  - name: tellmeter-alerts
    rules:
      - alert: TooMany
        expr: |-
          job:a:rate5m > 1e-05
            and on (job, provider, model)
          b
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "\\"a\\" of {{ $labels.job }}: \\u00e9"
          description: "# no comment"
"""


def test_rules_are_written_as_yaml():
    recording = Recording("job:a:rate5m", 'sum by (job) (\nrate(a_total{b="c: d"}[5m])\n)')
    alert = Alert(
        "TooMany",
        "job:a:rate5m",
        ">",
        0.00001,
        "5m",
        "warning",
        '"a" of {{ $labels.job }}: é',
        "# no comment",
        only="b",
    )
    groups = [Group("figures", (recording,)), Group("alerts", (alert,))]
    assert rules_text(groups, heading="Two lines\n\nof heading") == TEXT


def test_without_a_heading_there_is_no_comment():
    assert rules_text([Group("none", ())]).startswith("groups:\n")
