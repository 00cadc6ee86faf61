-- What people did with dead letters. Append-only: a line without a result before the effect, one with it afterwards.
create table wxpay_audit (
    seq          bigint generated always as identity primary key,
    recorded_at  timestamptz not null,
    request      text collate "C" not null,
    action       text collate "C" not null,
    notification text collate "C" not null,
    done_by      text not null,
    why          text not null,
    orders       text not null,
    reason       text collate "C" not null,
    result       text collate "C",
    detail       text not null
);
create index wxpay_audit_of_notification on wxpay_audit (notification, seq);
create index wxpay_audit_since on wxpay_audit (recorded_at);
