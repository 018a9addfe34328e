"""htpasswd files: all of one, or every error."""

import pytest

from auth.htpasswd import HtpasswdError, parse_htpasswd
from auth.passwords import verify_password

APR1 = "$apr1$abcdefgh$ckT15POyCRlen.h6XtGAZ1"  # openssl passwd -apr1 -salt abcdefgh hunter2
SHA1 = "{SHA}87vUeEJzrXlYb17A9+iC1fU1Y3c="
BCRYPT = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


def test_a_whole_file() -> None:
    """Names become canonical, the order stays; comments, empty lines, CRLF, a mark at the start are no users."""
    content = f"\ufeff# staff\nAlice:{APR1}\r\n\n   \nbob:{SHA1}\nzo\u00eb@example.org:{BCRYPT}".encode()
    assert parse_htpasswd(content) == [("alice", APR1), ("bob", SHA1), ("zo\u00eb@example.org", BCRYPT)]


def test_what_was_read_verifies() -> None:
    """An imported line lets its owner in, and nobody else (case 30)."""
    ((_, stored),) = parse_htpasswd(f"alice:{APR1}\n".encode())
    assert verify_password("hunter2", stored).ok
    assert not verify_password("hunter", stored).ok


def test_empty_file() -> None:
    """No users are no error."""
    assert parse_htpasswd(b"") == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"alice", "expected NAME:HASH, found 1 fields"),
        (b"alice:realm:0123456789abcdef0123456789abcdef", "expected NAME:HASH, found 3 fields"),
        (b"alice:CANARY", "plain text or DES crypt"),
        (b"alice:rl5FQEGiOBXQc", "plain text or DES crypt"),
        (b"alice:{PLAIN}CANARY", "plain text or DES crypt"),
        (b"alice:$1$abcdefgh$irWbblnpmw.5z7wgBnprh0", "unknown kind"),
        (b"alice:$CANARY", "unknown kind"),
        (b"alice:$apr1$abcdefgh$CANARY", "malformed"),
        (b"alice:$6$rounds=999999999$abcdefgh$" + b"a" * 86, "rounds"),
        (b"alice:", "no password is set"),
        (b"alice:!", "locked"),
        (b"alice:*", "locked"),
        (b":" + APR1.encode(), "1 to 255 bytes"),
        (b"a/b:" + APR1.encode(), "none of / : ,"),
        (b" alice:" + APR1.encode(), "space"),
        (b"al\xffce:" + APR1.encode(), "not UTF-8"),
        (b"a" * 1024, "expected NAME:HASH"),
        (b"a" * 1024 + b":", "longer than 1024 bytes"),
    ],
)
def test_wrong_line(line: bytes, problem: str) -> None:
    """A line that cannot be imported says why and where, and never repeats itself: it may hold a password (case 36)."""
    with pytest.raises(HtpasswdError) as caught:
        parse_htpasswd(b"# first line\n" + line + b"\n")
    ((number, text),) = caught.value.problems
    assert number == 2
    assert problem in text
    assert "CANARY" not in str(caught.value)


def test_all_errors_at_once() -> None:
    """Every wrong line is listed by its number, and nothing is imported."""
    with pytest.raises(HtpasswdError) as caught:
        parse_htpasswd(f"alice:{APR1}\nbob\ncarol:{SHA1}\nALICE:{SHA1}\ndave:plain\n".encode())
    assert str(caught.value) == (
        "line 2: expected NAME:HASH, found 1 fields\n"
        "line 4: this user is on line 1 already\n"
        "line 5: plain text or DES crypt, which are not imported; make a hash with `htpasswd -B`"
    )
