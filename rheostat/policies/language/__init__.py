"""Language models as policies: loading, packed scoring, adapters, value heads."""
