"""How a database comes to its schema: Alembic, in two branches that know nothing of each other.

`groundskeeper` is our own schema, added to whatever database there is; `platform` is the reference platform, for
the demo and the tests only. Each has its folder of revisions and its version table, both tables in the schema
groundskeeper, so that nothing of ours is ever outside it.
"""
