"""How the platform's statements are planned: the worst of them explained, compared with last time, nothing executed."""
