"""Find out why multicast does not arrive: `diagnose` does all of it, `collect` its first half, `judge` its second."""

from multicast_expert.doctor.collector import collect
from multicast_expert.doctor.diagnosis import diagnose
from multicast_expert.doctor.facts import Facts, Unread
from multicast_expert.doctor.judgement import judge
from multicast_expert.doctor.report import Finding, Report
from multicast_expert.doctor.saved import facts_from_text, facts_to_text

__all__ = ["Facts", "Finding", "Report", "Unread", "collect", "diagnose", "facts_from_text", "facts_to_text", "judge"]
