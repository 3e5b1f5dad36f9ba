"""The spool: records on disk before they are sent, so that they outlive the process."""
