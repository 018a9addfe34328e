"""What administrators change while the server runs: users, groups, rules, limits, blocks; and usage. In SQLite."""

from trioproxy.store.blocks import StoredBlocks
from trioproxy.store.database import path_from_url
from trioproxy.store.errors import EntryError, StoreError
from trioproxy.store.limits import Limits, party_order
from trioproxy.store.policy_text import (
    PolicyContent,
    PolicyTextError,
    difference,
    parse_policy_untrusted,
    render_policy,
)
from trioproxy.store.rules import Rules, StoredRule, listing_order
from trioproxy.store.snapshot import Snapshot, login_problems, read_rule_set
from trioproxy.store.store import Store
from trioproxy.store.usage import UsageStore, usage_path
from trioproxy.store.usage_report import By, UsageLine, UsageReport, UsageWish, report_usage
from trioproxy.store.users import Users

__all__ = [
    "By",
    "EntryError",
    "Limits",
    "PolicyContent",
    "PolicyTextError",
    "Rules",
    "Snapshot",
    "Store",
    "StoreError",
    "StoredBlocks",
    "StoredRule",
    "UsageLine",
    "UsageReport",
    "UsageStore",
    "UsageWish",
    "Users",
    "difference",
    "listing_order",
    "login_problems",
    "parse_policy_untrusted",
    "party_order",
    "path_from_url",
    "read_rule_set",
    "render_policy",
    "report_usage",
    "usage_path",
]
