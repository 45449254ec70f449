-- Version 4: a ledger that lost something can be told.

-- How many transactions have changed something. ledger.lock says it too: a file that knows of fewer has lost some.
CREATE TABLE progress (
    commits           INTEGER NOT NULL CHECK (commits >= 0),
    only              INTEGER NOT NULL PRIMARY KEY CHECK (only = 1)
) STRICT, WITHOUT ROWID;

INSERT INTO progress (commits, only) VALUES (0, 1);
