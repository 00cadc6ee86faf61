-- What every handler that applies a payment uses. :orders is the number of orders.
drop table if exists peer_orders, peer_events, peer_points;
create table peer_orders (
    out_trade_no text primary key, amount bigint not null, user_id text not null, state text not null default 'unpaid'
);
create table peer_events (
    transaction_id text primary key, out_trade_no text not null, amount bigint not null,
    recorded_at timestamptz not null default now()
);
create table peer_points (user_id text primary key, balance bigint not null);
insert into peer_orders (out_trade_no, amount, user_id)
    select 'A' || lpad(n::text, 10, '0'), 8800, 'u' || n % 50000 from generate_series(0, :orders - 1) n;
analyze peer_orders;
checkpoint;
