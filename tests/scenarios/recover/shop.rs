//! The tables that are recovered, and what befalls them.

pub const SHOP: &str = r#"
    create role clerk; create role gone;
    create schema shop;
    create type shop.state as enum ('open', 'paid');
    create table shop.customers(id int primary key, name text);
    insert into shop.customers select n, 'c' || n from generate_series(1, 50) n;
    create function shop.note() returns trigger language plpgsql as $$ begin return new; end $$;
    create table shop.orders(
        id bigint generated always as identity primary key, customer int references shop.customers,
        state shop.state not null default 'open', total numeric(10, 2) not null check (total >= 0),
        double numeric generated always as (total * 2) stored, body text, at timestamptz default now());
    create index by_state on shop.orders(state, (left(body, 8)));
    create statistics shop.orders_stat on customer, state from shop.orders;
    create trigger note before insert on shop.orders for each row execute function shop.note();
    alter table shop.orders enable row level security;
    create policy mine on shop.orders for select to clerk using (customer < 10);
    create view shop.open_orders as select id from shop.orders where state = 'open';
    grant select on shop.orders to clerk; grant update (body) on shop.orders to gone;
    comment on table shop.orders is 'what is ordered'; comment on column shop.orders.total is 'in €';
    -- Some bodies are TOASTed: they do not compress.
    insert into shop.orders(customer, state, total, body)
        select n % 50 + 1, (array['open', 'paid']::shop.state[])[n % 2 + 1], n,
            (select string_agg(md5((n * g)::text), '') from generate_series(1, case when n % 100 = 0 then 500 else 1 end) g)
        from generate_series(1, 1000) n;

    create table events(day date not null, id int not null, what text, primary key (day, id)) partition by range (day);
    create table events_1 partition of events for values from ('2026-01-01') to ('2026-02-01');
    create table events_2 partition of events for values from ('2026-02-01') to ('2026-03-01') partition by list (id);
    create table events_2a partition of events_2 default;
    create index on events(what);
    insert into events select date '2026-01-15' + n % 30, n, 'w' || n from generate_series(1, 300) n;

    create type "Odd ""Kind""" as enum ('a''b', 'C d');
    create table "My ""Odd"".Table"("Key One" serial primary key, "select" "Odd ""Kind""", "ü" int[]);
    insert into "My ""Odd"".Table"("select", "ü") select 'C d', array[n, null] from generate_series(1, 20) n;

    create table log(line text, number numeric);
    insert into log select 'x' || n % 3, case when n % 3 > 0 then n % 3 end from generate_series(1, 30) n;

    alter table shop.orders force row level security; alter table events_1 enable row level security;
    create table event_notes(day date, id int, foreign key (day, id) references events);
    insert into event_notes select day, id from events;

    create sequence shop.numbers;
    create function shop.is_right(bigint) returns bool language sql security definer as 'select $1 > 0';
    alter function shop.is_right(bigint) owner to clerk;
    create function shop.as_clerk(bigint) returns text language plpgsql immutable as $$ begin
        if current_user <> 'clerk' then raise exception 'it runs as %', current_user; end if; return ''; end $$;
    create table shop.parent(note text);
    create table shop.child(no bigint primary key default nextval('shop.numbers'), check (shop.is_right(no))) inherits (shop.parent);
    create view shop.children with (security_barrier) as select no from shop.child;
    insert into shop.child(note) select 'n' || n from generate_series(1, 20) n;
    alter table shop.child owner to clerk; create index on shop.child(shop.as_clerk(no));
    create function shop.is_lost(int) returns bool language sql as 'select true';
    alter function shop.is_lost(int) owner to gone;
    create table shop.of_gone(id int check (shop.is_lost(id)));

    create table shop.tickets(id serial primary key, code varchar(9) unique);
    insert into shop.tickets(code) select 't' || n from generate_series(1, 10) n;
"#;

pub const DAMAGE: &str = r#"
    delete from shop.orders where id between 11 and 40;
    update shop.orders set body = 'wrong' where id in (50, 100);
    insert into shop.orders(customer, total) values (9, 1), (9, 2), (9, 3);
    truncate events, event_notes;
    drop table "My ""Odd"".Table"; drop type "Odd ""Kind""";
    delete from log where ctid in (select ctid from log where line = 'x0' limit 4);
    insert into log values ('new', 1);
    alter table shop.orders disable trigger all;
    alter table shop.orders drop constraint orders_customer_fkey; delete from shop.customers where id = 21;
    drop table shop.of_gone; drop function shop.is_lost;
    revoke all on shop.orders from gone; drop role gone;
    drop table shop.child cascade; drop function shop.is_right; drop sequence shop.numbers;
    delete from shop.tickets where id > 5; insert into shop.tickets values (1000, 'f');
    select setval('shop.tickets_id_seq', 5); alter table shop.tickets alter code type varchar(2);
    create function shop.shout(shop.state) returns text language plpgsql as $$ begin raise exception 'a cast'; end $$;
    create cast (shop.state as text) with function shop.shout(shop.state);
    alter default privileges in schema shop grant select on tables to public;
"#;
