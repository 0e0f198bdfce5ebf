-- Users of the storage strategy. Names compare byte by byte, so that pages of a list have
-- one order whatever the database's locale is. Revisions come from a sequence, so that
-- none comes twice for a name that is removed and made again.
CREATE SEQUENCE {revisions};

CREATE TABLE {users} (
	name        text COLLATE "C" PRIMARY KEY,
	password    text NOT NULL,
	client_data json NOT NULL,
	server_data json NOT NULL,
	revision    bigint NOT NULL DEFAULT nextval('{revisions}'),
	changed     timestamptz NOT NULL DEFAULT now()
);

ALTER SEQUENCE {revisions} OWNED BY {users}.revision;

-- Roles by the id of the user, of whichever strategy.
CREATE TABLE {roles} (
	id   text COLLATE "C" PRIMARY KEY,
	role text NOT NULL
);
