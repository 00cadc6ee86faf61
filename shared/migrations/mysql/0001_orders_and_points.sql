-- Money is in fen, times are UTC, texts compare byte by byte, JSON is kept as text.

create table wxpay_orders (
    merchant          varchar(32) not null,
    out_trade_no      varchar(32) not null,
    -- What was registered. A shop may insert these columns itself; all others have defaults.
    amount            bigint not null check (amount >= 0),
    currency          char(3) not null default 'CNY',
    user_id           varchar(128),
    appid             varchar(32),
    points_rate       varchar(32) not null,
    registered_at     datetime(6) not null default (utc_timestamp(6)),
    -- What became of it, computed from its events.
    closed_at         datetime(6),
    state             varchar(32) not null default 'unpaid',
    received          bigint not null default 0,
    kept              bigint not null default 0,
    points_user       varchar(128),
    credited          bigint not null default 0,
    announced_refunds longtext,
    primary key (merchant, out_trade_no)
) engine = InnoDB default character set = utf8mb4 collate = utf8mb4_bin;

-- Each fact once, under its key, on the order that it was recorded on.
create table wxpay_events (
    event_key      varchar(96) not null,
    merchant       varchar(32) not null,
    out_trade_no   varchar(32) not null,
    kind           varchar(16) not null,
    transaction_id varchar(32) not null,
    amount         bigint not null,
    fingerprint    varchar(255) not null,
    fact           longtext not null,
    notification   varchar(36) not null,
    reason         varchar(64),
    detail         text,
    recorded_at    datetime(6) not null,
    primary key (event_key),
    key wxpay_events_of_order (merchant, out_trade_no),
    key wxpay_events_of_transaction (transaction_id)
) engine = InnoDB default character set = utf8mb4 collate = utf8mb4_bin;

create table wxpay_points_accounts (
    merchant varchar(32) not null,
    user_id  varchar(128) not null,
    balance  bigint not null,
    entries  bigint not null,
    primary key (merchant, user_id)
) engine = InnoDB default character set = utf8mb4 collate = utf8mb4_bin;

-- Append-only. The entries of an account are numbered from 1 without gaps.
create table wxpay_points_ledger (
    merchant     varchar(32) not null,
    user_id      varchar(128) not null,
    seq          bigint not null,
    out_trade_no varchar(32) not null,
    event_key    varchar(96) not null,
    points       bigint not null,
    balance      bigint not null,
    recorded_at  datetime(6) not null,
    primary key (merchant, user_id, seq),
    unique key wxpay_points_ledger_of_event (event_key),
    key wxpay_points_ledger_of_order (merchant, out_trade_no)
) engine = InnoDB default character set = utf8mb4 collate = utf8mb4_bin;
