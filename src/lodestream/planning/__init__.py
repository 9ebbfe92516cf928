"""What has to run? Model to plan, diff and explanation."""
