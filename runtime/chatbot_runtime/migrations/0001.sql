-- Every table of the service. PostgreSQL is the truth; shards hold caches of it.

-- Small persistent facts, one JSON value a key.
CREATE TABLE setting (
    key        text PRIMARY KEY,
    value      jsonb NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- People, always inside one workspace (a tenant).
CREATE TABLE workspace (
    workspace  text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE account (
    user_id       text PRIMARY KEY,
    workspace     text NOT NULL REFERENCES workspace,
    username      text NOT NULL UNIQUE,
    admin         boolean NOT NULL,
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX account_by_workspace ON account (workspace, username);

CREATE TABLE session (
    token_hash bytea PRIMARY KEY,
    workspace  text NOT NULL REFERENCES workspace,
    user_id    text NOT NULL REFERENCES account ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
);
CREATE INDEX session_by_expiry ON session (expires_at);

-- What ties vectors to the embedder that made them; reads use the one generation with `reads`.
CREATE TABLE generation (
    gen         integer PRIMARY KEY,
    fingerprint text NOT NULL,
    dimension   integer NOT NULL CHECK (dimension > 0),
    reads       boolean NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX generation_read ON generation (reads) WHERE reads;

-- Who owns which of the 1,024 slots: one row; `next` is empty while nothing moves.
CREATE TABLE slot_map (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch  bigint NOT NULL,
    owners smallint[] NOT NULL CHECK (cardinality(owners) = 1024),
    next   smallint[] NOT NULL DEFAULT '{}' CHECK (cardinality(next) IN (0, 1024))
);

-- A slot's counter is the last lock of every writing transaction, so that a reader that sees
-- seq = n sees every event up to n. The digest is the XOR over the slot's live documents.
-- Free space in the page keeps updates of these hot rows out of the index.
CREATE TABLE slot_seq (
    gen    integer NOT NULL REFERENCES generation,
    slot   smallint NOT NULL CHECK (slot BETWEEN 0 AND 1023),
    seq    bigint NOT NULL DEFAULT 0,
    digest bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (gen, slot)
) WITH (fillfactor = 50);

-- `doc_no` stays inside; people see the random `doc_id`, from which the slot was drawn once.
CREATE TABLE document (
    doc_no     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    doc_id     text NOT NULL UNIQUE,
    workspace  text NOT NULL,
    name       text NOT NULL,
    media_type text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256     bytea NOT NULL CHECK (octet_length(sha256) = 32),
    store      text NOT NULL,
    object_id  text NOT NULL UNIQUE,
    slot       smallint NOT NULL CHECK (slot BETWEEN 0 AND 1023),
    ver        integer NOT NULL DEFAULT 1,
    deleted    boolean NOT NULL DEFAULT false,
    state      text NOT NULL DEFAULT 'Queued'
               CHECK (state IN ('Queued', 'Processing', 'Searchable', 'Failed')),
    error      text NOT NULL DEFAULT '',
    chunks     integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX document_by_content ON document (workspace, sha256) WHERE NOT deleted;
CREATE INDEX document_by_workspace ON document (workspace, doc_no DESC) WHERE NOT deleted;

-- What a client named an upload (Idempotency-Key), for a day: the same name is the same upload.
CREATE TABLE upload_key (
    workspace  text NOT NULL,
    upload_key text NOT NULL,
    sha256     bytea NOT NULL,
    doc_no     bigint NOT NULL REFERENCES document,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, upload_key)
);
CREATE INDEX upload_key_by_age ON upload_key (created_at);

-- Background work under leases. A finished job is removed; one that failed for good stays.
CREATE TABLE job (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,
    key         text NOT NULL,
    workspace   text NOT NULL,
    payload     jsonb NOT NULL DEFAULT '{}',
    priority    smallint NOT NULL DEFAULT 100,
    run_after   timestamptz NOT NULL DEFAULT now(),
    attempts    integer NOT NULL DEFAULT 0,
    token       text,
    lease_until timestamptz,
    progress    text NOT NULL DEFAULT '',
    error       text NOT NULL DEFAULT '',
    failed_at   timestamptz
);
CREATE UNIQUE INDEX job_unfinished ON job (kind, key) WHERE failed_at IS NULL;
CREATE INDEX job_due ON job (priority, run_after, id) WHERE failed_at IS NULL;

-- One event a document and generation: its latest. Chunk rows count only through a Live event.
CREATE TABLE doc_event (
    gen       integer NOT NULL REFERENCES generation,
    doc_no    bigint NOT NULL,
    workspace text NOT NULL,
    slot      smallint NOT NULL,
    seq       bigint NOT NULL,
    ver       integer NOT NULL,
    state     text NOT NULL CHECK (state IN ('Live', 'Dead')),
    chunks    integer NOT NULL,
    PRIMARY KEY (gen, doc_no)
);
CREATE UNIQUE INDEX doc_event_by_seq ON doc_event (gen, slot, seq);

-- Rows stay below 2,000 bytes: float16 vectors inline and uncompressed (compression of vectors
-- costs two thirds of the write rate and saves nothing), longer texts out of line.
CREATE TABLE chunk (
    gen       integer NOT NULL,
    doc_no    bigint NOT NULL,
    ver       integer NOT NULL,
    ord       integer NOT NULL,
    workspace text NOT NULL,
    first     integer NOT NULL,
    past      integer NOT NULL,
    page      integer,
    body      text NOT NULL,
    vector    bytea NOT NULL,
    PRIMARY KEY (gen, doc_no, ver, ord)
) PARTITION BY LIST (gen);
ALTER TABLE chunk ALTER COLUMN vector SET STORAGE PLAIN;
ALTER TABLE chunk ALTER COLUMN body SET STORAGE EXTERNAL;

-- One heartbeat a process: the routers' address book and the source of the cluster's status.
CREATE TABLE member (
    role        text NOT NULL,
    name        text NOT NULL,
    address     text NOT NULL,
    started_at  timestamptz NOT NULL,
    version     text NOT NULL,
    config_hash text NOT NULL,
    epoch       bigint NOT NULL,
    ready       boolean NOT NULL,
    reason      text NOT NULL,
    shard       integer,
    report      jsonb NOT NULL,
    seen_at     timestamptz NOT NULL,
    PRIMARY KEY (role, name)
) WITH (fillfactor = 50);
