"""Who may reach what: canonical destinations, blocks, the floor, rules, limits, the verdict and why. Pure."""

from trioproxy.policy.blocks import Block, BlockKind, Blocks, BlockSubject
from trioproxy.policy.canonical import CanonicalError, canonical_address, canonical_host
from trioproxy.policy.directory import DirectoryLayer, directory_layers, rule_problems
from trioproxy.policy.explanation import Explanation, LayerVote, RuleHours, Vote
from trioproxy.policy.floor import Floor, OwnEndpoints
from trioproxy.policy.grammar import RuleSyntaxError, parse_rule
from trioproxy.policy.hours import Hours, TimeZones
from trioproxy.policy.limits import EachLimits, Limit, LimitBook, Party
from trioproxy.policy.policy import Policy
from trioproxy.policy.ranges import IPNetwork
from trioproxy.policy.request import AccessRequest, IPAddress, Permit, Reason, Refusal, RuleProtocol, Term, Verdict
from trioproxy.policy.rules import Rule, check_scope
from trioproxy.policy.ruleset import RuleSet
from trioproxy.policy.scope import DEFAULT_TENANT, Scope, ScopeKind

__all__ = [
    "DEFAULT_TENANT",
    "AccessRequest",
    "Block",
    "BlockKind",
    "BlockSubject",
    "Blocks",
    "CanonicalError",
    "DirectoryLayer",
    "EachLimits",
    "Explanation",
    "Floor",
    "Hours",
    "IPAddress",
    "IPNetwork",
    "LayerVote",
    "Limit",
    "LimitBook",
    "OwnEndpoints",
    "Party",
    "Permit",
    "Policy",
    "Reason",
    "Refusal",
    "Rule",
    "RuleHours",
    "RuleProtocol",
    "RuleSet",
    "RuleSyntaxError",
    "Scope",
    "ScopeKind",
    "Term",
    "TimeZones",
    "Verdict",
    "Vote",
    "canonical_address",
    "canonical_host",
    "check_scope",
    "directory_layers",
    "parse_rule",
    "rule_problems",
]
