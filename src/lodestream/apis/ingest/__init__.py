"""HTTP ingest: `POST /ingest/{stream}`, the front door for events that are pushed."""
