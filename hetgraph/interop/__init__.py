"""Exchange with other graph libraries; each is imported only when it is used."""
