-- Version 3: blocks of cluster-wide pools.

-- Which ledger this is: another one is made when this file is lost, and then what the API server holds for the node
-- belongs to promises that nobody remembers.
CREATE TABLE incarnation (
    id                TEXT    NOT NULL CHECK (id <> ''),
    only              INTEGER NOT NULL PRIMARY KEY CHECK (only = 1)
) STRICT, WITHOUT ROWID;

-- Cluster-wide pools as the API server last described them without a fault.
CREATE TABLE pools (
    pool              TEXT    NOT NULL PRIMARY KEY CHECK (pool <> ''),
    spec              TEXT    NOT NULL CHECK (json_valid(spec)),
    network           TEXT,                           -- the one network that leases from it on this node
    updated_at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Parts of cluster-wide pools that belong to this node alone, for as long as the row is here.
CREATE TABLE blocks (
    pool              TEXT    NOT NULL REFERENCES pools,
    family            INTEGER NOT NULL CHECK (family IN (4, 6)),
    first             BLOB    NOT NULL CHECK (length(first) = iif(family = 4, 4, 16)),
    prefix_length     INTEGER NOT NULL CHECK (prefix_length BETWEEN 0 AND iif(family = 4, 32, 128)),
    address           TEXT    NOT NULL,               -- the first address, to be read
    claimed_at        INTEGER NOT NULL,
    draining          INTEGER NOT NULL CHECK (draining IN (0, 1)),   -- 1: no new lease from it
    PRIMARY KEY (pool, family, first)
) STRICT, WITHOUT ROWID;
