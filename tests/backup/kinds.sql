-- One of every kind; :rows is how large it gets.
\set ON_ERROR_STOP on
set client_min_messages = error;
create extension hstore;

create extension citext;

create extension pg_trgm;

create role "reader of a test" nologin;

create schema "Odd Schema";

create type mood as enum ('sad', 'ok', 'happy');

create domain positive as int check (value > 0);

create type pair as (a int, b text);

create type span_of as range (subtype = float8);

create sequence "Odd Schema".counter increment by -3 maxvalue 100 start 50;

select nextval('"Odd Schema".counter');

create table kinds (
    id bigint generated always as identity primary key, small smallint, big numeric, real_ real, double_ float8,
    truth boolean, word varchar(40), fixed char(9), note text collate "C", insensitive citext, bytes bytea,
    day date, moment timestamptz, naive timestamp, clock time, clock_z timetz, lapse interval, money_ money,
    doc json, docb jsonb, map hstore, words text[], matrix int[][], mood_ mood, moods mood[], pos positive,
    pair_ pair, pairs pair[], ints int4range, many nummultirange, spans span_of, net inet, block cidr, mac macaddr,
    unique_ uuid default gen_random_uuid(), bits bit varying(20), place point, shape_ polygon, search tsvector,
    query_ tsquery, xml_ xml, lsn pg_lsn, of_ regclass, doubled bigint generated always as (small * 2) stored);

insert into kinds (small, big, real_, double_, truth, word, fixed, note, insensitive, bytes, day, moment, naive, clock,
    clock_z, lapse, money_, doc, docb, map, words, matrix, mood_, moods, pos, pair_, pairs, ints, many, spans, net, block,
    mac, bits, place, shape_, search, query_, xml_, lsn, of_)
select n % 30000, n / 7.0, n / 3.0, case n % 5 when 0 then 'NaN'::float8 when 1 then '-0'::float8
    when 2 then 'Infinity'::float8 else random() end, n % 2 = 0, 'Wörd ' || n, 'x', E'tab\t new\n line \\ quote'' "' || n,
    'MiXed', sha256(n::text::bytea), date '2026-01-01' + n % 900, case when n % 7 = 0 then 'infinity'
    else timestamptz '2026-01-01 00:00+00' + n * interval '1 minute 1 microsecond' end, '1000-01-01 BC', '23:59:59.999999',
    '12:00+05:30', interval '1 year 2 mons 3 days 4:05:06.7', n::numeric::money, '{"b":1, "a" : [1,2 ]}',
    jsonb_build_object('n', n, 'x', array[1, null, 3], 'ü', 'é'), hstore('a', n::text), array['a', null, '', '{"'],
    array[[1, 2], [3, 4]], 'ok', array['sad', 'happy']::mood[], n, row(n, 'x,"y"')::pair,
    array[row(1, null)::pair], int4range(n, n + 5), nummultirange(numrange(1, 2), numrange(5, 6)), span_of(1.5, 2.5),
    '2001:db8::1', '198.51.100.0/24', '08:00:2b:01:02:03', b'10110', point(1.5, -2), '((0,0),(1,1),(2,0))',
    to_tsvector('simple', 'the quick fox ' || n), 'fox & quick', null, '16/B374D848', 'pg_class'
  from generate_series(1, :rows) n;

insert into kinds (word) values (null), (''), ('null'), (E'\\N');

create table "Odd Schema"."T %s: ""quoted""" ("a%b" int, ":bind" text, "t" text);

insert into "Odd Schema"."T %s: ""quoted""" values (1, 'x', 'y'), (null, null, null);

create table no_columns ();

insert into no_columns default values;

create table empty (x int);

create unlogged table volatile_ (x int);

insert into volatile_ values (1);

create table dropped_columns (a int, b text, c int);

insert into dropped_columns values (1, 'gone', 2);

alter table dropped_columns drop column b;

create table parent (id int primary key, at date);

create table child (more text) inherits (parent);

insert into parent values (1, '2026-01-01');

insert into child values (2, '2026-01-02', 'm');

create table events (at timestamptz not null, id int, kind text) partition by range (at);

create table events_1 partition of events for values from ('2026-01-01') to ('2026-02-01') partition by list (kind);

create table events_1_a partition of events_1 for values in ('a');

create table events_rest partition of events default;

create index on events (id);

alter table events add primary key (at, id, kind);

insert into events select timestamptz '2026-01-15' + n * interval '1 day', n, 'a' from generate_series(1, 40) n
 where timestamptz '2026-01-15' + n * interval '1 day' not between '2026-01-31 23:00+00' and '2026-02-01 01:00+00';

create table linked (at timestamptz, id int, kind text, foreign key (at, id, kind) references events);

create table tenants (id int primary key, owner text);

insert into tenants values (1, 'x'), (2, 'y');

alter table tenants enable row level security;

alter table tenants force row level security;

create policy own on tenants for select to "reader of a test" using (owner = current_user);

grant select on tenants to "reader of a test";

create table booked (room int, during tstzrange, exclude using gist (during with &&));

insert into booked values (1, '[2026-01-01,2026-01-02)');

create function touch() returns trigger language plpgsql as $$ begin new.x = new.x + 1; return new; end $$;

create trigger touched before insert on empty for each row execute function touch();

create view seen as select id, word from kinds where truth;

create materialized view counted as select mood_, count(*) from kinds group by 1;

create unique index on counted (mood_);

create index on kinds using gin (words);

create index on kinds using gin (note gin_trgm_ops);

create statistics correlated on small, truth from kinds;

create rule nothing as on delete to empty do instead nothing;

create publication changes for table kinds;

comment on table kinds is 'of every kind';

select lo_from_bytea(0, sha256(n::text::bytea)) from generate_series(1, 20) n;

select lo_from_bytea(0, (select string_agg(sha256((n + i)::text::bytea), '') from generate_series(1, 1250) i))
  from generate_series(1, :rows / 200) n;

create table wide as select repeat(md5(n::text), 20000) as text_, null::int as nothing from generate_series(1, 3) n;
