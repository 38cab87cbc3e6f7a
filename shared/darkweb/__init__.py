"""What leaked elsewhere: breaches that name our domains or customers, and our names on hidden services."""
