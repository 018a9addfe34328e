"""What administrators change while the server runs: local users, their groups, and the rules; and usage. In SQLite."""

from trioproxy.store.database import path_from_url
from trioproxy.store.errors import EntryError, StoreError
from trioproxy.store.policy_text import PolicyTextError, difference, parse_policy_untrusted, render_policy
from trioproxy.store.rules import Rules, StoredRule, listing_order
from trioproxy.store.snapshot import Snapshot, login_problems, read_rule_set
from trioproxy.store.store import Store
from trioproxy.store.usage import UsageStore, usage_path
from trioproxy.store.usage_report import By, UsageLine, UsageReport, UsageWish, report_usage
from trioproxy.store.users import Users

__all__ = [
    "By",
    "EntryError",
    "PolicyTextError",
    "Rules",
    "Snapshot",
    "Store",
    "StoreError",
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
    "path_from_url",
    "read_rule_set",
    "render_policy",
    "report_usage",
    "usage_path",
]
