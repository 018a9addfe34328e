#!/usr/bin/env python3
"""A program that the backend "program" can ask: people from a JSON file, `people.py /etc/trioproxy/people.json`.

    {"carol": {"salt": "a1b2", "scrypt": "...", "groups": ["system-proxy"], "disabled": false, "changed": "2026-11-21"}}

`people.py --hash` reads a password and prints its salt and its hash.
"""

import hashlib
import json
import secrets
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer one question."""
    if sys.argv[1] == "--hash":
        salt = secrets.token_hex(16)
        print(json.dumps({"salt": salt, "scrypt": scrypt(sys.stdin.readline().rstrip("\n"), salt)}))
        return
    question = json.loads(sys.stdin.readline())
    try:
        people = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # Not "no": nobody knows. The user's sessions go on, and no other backend gets to see the password.
        print(json.dumps({"answer": "unavailable", "problem": f"the people cannot be read: {type(error).__name__}"}))
    else:
        print(json.dumps(answer(people, question)))


def answer(people: dict[str, Any], question: dict[str, str]) -> dict[str, Any]:
    """Who it is, or why not."""
    person = people.get(question["user"])
    if person is None:
        return {"answer": "no", "reason": "unknown user"}
    # The password first: only who knows it may learn that the account is disabled.
    if question["question"] == "login":
        given = scrypt(question["password"], person["salt"])
        if not secrets.compare_digest(given, person["scrypt"]):
            return {"answer": "no", "reason": "wrong password"}
    if person.get("disabled"):
        return {"answer": "no", "reason": "disabled"}
    return {"answer": "yes", "groups": person["groups"], "epoch": person.get("changed", "")}


def scrypt(password: str, salt: str) -> str:
    """The hash of a password, in hexadecimal digits."""
    return hashlib.scrypt(password.encode(), salt=salt.encode(), n=2**14, r=8, p=1).hex()


if __name__ == "__main__":
    main()
