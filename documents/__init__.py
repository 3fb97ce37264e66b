"""Makes what the pages of the site show: `python -m documents` writes screens, diagrams and moving pictures anew."""
