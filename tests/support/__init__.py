"""What several tests share: platforms, snapshots of the world, servers speaking other protocols."""
