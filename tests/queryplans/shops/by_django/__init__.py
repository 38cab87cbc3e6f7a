"""The shop through Django's ORM, by psycopg. A Django app: its models exist once Django is set up."""
