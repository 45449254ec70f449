-- Version 2: addresses that foreign hosts have.

-- An address that a foreign host was found to have on the link before it was given to a container. Not given out until
-- the foreign host has not been seen for a while. Its bit in `chunks` is set, and it has no row in `leases`.
CREATE TABLE set_aside (
    network           TEXT    NOT NULL,
    family            INTEGER NOT NULL CHECK (family IN (4, 6)),
    key               BLOB    NOT NULL CHECK (length(key) = iif(family = 4, 4, 16)),   -- network byte order: sorts
    address           TEXT    NOT NULL,                                                -- the same, to be read
    mac               TEXT    NOT NULL,                                                -- the foreign host's
    container_id      TEXT    NOT NULL CHECK (container_id <> ''),                     -- who was to have it
    ifname            TEXT    NOT NULL CHECK (ifname <> ''),
    seen_at           INTEGER NOT NULL,
    PRIMARY KEY (network, family, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX set_aside_by_time ON set_aside (network, seen_at);
