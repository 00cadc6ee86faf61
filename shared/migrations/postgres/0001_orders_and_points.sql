-- Money is in fen, times are UTC, texts compare byte by byte, JSON is kept as text.

create table wxpay_orders (
    merchant          text collate "C" not null,
    out_trade_no      text collate "C" not null,
    -- What was registered. A shop may insert these columns itself; all others have defaults.
    amount            bigint not null check (amount >= 0),
    currency          text collate "C" not null default 'CNY',
    user_id           text collate "C",
    appid             text collate "C",
    points_rate       text collate "C" not null,
    registered_at     timestamptz not null default now(),
    -- What became of it, computed from its events.
    closed_at         timestamptz,
    state             text collate "C" not null default 'unpaid',
    received          bigint not null default 0,
    kept              bigint not null default 0,
    points_user       text collate "C",
    credited          bigint not null default 0,
    announced_refunds text,
    primary key (merchant, out_trade_no)
);

-- Each fact once, under its key, on the order that it was recorded on.
create table wxpay_events (
    event_key      text collate "C" primary key,
    merchant       text collate "C" not null,
    out_trade_no   text collate "C" not null,
    kind           text collate "C" not null,
    transaction_id text collate "C" not null,
    amount         bigint not null,
    fingerprint    text collate "C" not null,
    fact           text not null,
    notification   text collate "C" not null,
    reason         text collate "C",
    detail         text,
    recorded_at    timestamptz not null
);
create index wxpay_events_of_order on wxpay_events (merchant, out_trade_no);
create index wxpay_events_of_transaction on wxpay_events (transaction_id);

create table wxpay_points_accounts (
    merchant text collate "C" not null,
    user_id  text collate "C" not null,
    balance  bigint not null,
    entries  bigint not null,
    primary key (merchant, user_id)
);

-- Append-only. The entries of an account are numbered from 1 without gaps.
create table wxpay_points_ledger (
    merchant     text collate "C" not null,
    user_id      text collate "C" not null,
    seq          bigint not null,
    out_trade_no text collate "C" not null,
    event_key    text collate "C" not null unique,
    points       bigint not null,
    balance      bigint not null,
    recorded_at  timestamptz not null,
    primary key (merchant, user_id, seq)
);
create index wxpay_points_ledger_of_order on wxpay_points_ledger (merchant, out_trade_no);
