"""The local channel: processes of this machine register services that live with their connection."""
