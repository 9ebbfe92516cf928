"""Definitions to elsewhere: a project as a bundle for Databricks."""
