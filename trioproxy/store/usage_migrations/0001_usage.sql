-- Plain SQL that PostgreSQL reads as well. A file of its own, beside the store of users and rules.
-- A quarter is a number of quarters of an hour since 1970 (UTC): every time zone of today begins its days with one.

CREATE TABLE group_set (
    id INTEGER PRIMARY KEY,
    names TEXT NOT NULL UNIQUE -- in order, with commas between them; no name has one
);

CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    user_name TEXT NOT NULL, -- empty: no login; '/': several, of whom nothing more is known
    group_set INTEGER NOT NULL REFERENCES group_set (id),
    last_quarter BIGINT NOT NULL, -- no row of usage that names it is younger
    UNIQUE (tenant, user_name, group_set)
);

CREATE TABLE target (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE, -- as the client asked for it, host:port; empty: several, of which nothing more is known
    last_quarter BIGINT NOT NULL
);

-- The key is the whole table: what is written now lies together, what is too old as well, and a row takes 25 bytes.
CREATE TABLE usage (
    quarter BIGINT NOT NULL, -- in which the flows began
    account INTEGER NOT NULL,
    target INTEGER NOT NULL,
    app TEXT NOT NULL, -- empty: nobody looked
    flows BIGINT NOT NULL,
    to_client BIGINT NOT NULL,
    to_target BIGINT NOT NULL,
    PRIMARY KEY (quarter, account, target, app)
) WITHOUT ROWID;

CREATE TABLE quota_used (
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    scope TEXT NOT NULL,
    rule TEXT NOT NULL,
    period_start TEXT NOT NULL, -- ISO 8601, UTC
    bytes BIGINT NOT NULL,
    PRIMARY KEY (tenant, owner, scope, rule, period_start)
);
