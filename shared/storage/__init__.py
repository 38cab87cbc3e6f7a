"""Objects and log files that age out: by place, by age, by what the database says of them."""
