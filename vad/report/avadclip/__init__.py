"""Tables and figures of AVadCLIP (arXiv 2504.04495)."""
