-- What people did with dead letters. Append-only: a line without a result before the effect, one with it afterwards.
create table wxpay_audit (
    seq          bigint not null auto_increment,
    recorded_at  datetime(6) not null,
    request      varchar(36) not null,
    action       varchar(16) not null,
    notification varchar(36) not null,
    done_by      text not null,
    why          text not null,
    orders       text not null,
    reason       varchar(64) not null,
    result       varchar(32),
    detail       text not null,
    primary key (seq),
    key wxpay_audit_of_notification (notification, seq),
    key wxpay_audit_since (recorded_at)
) engine = InnoDB default character set = utf8mb4 collate = utf8mb4_bin;
