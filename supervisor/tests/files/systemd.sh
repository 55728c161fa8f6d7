# Makes a machine of new namespaces, with systemd as its first process and no units but those that a test adds.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/lock
mount -t tmpfs tmpfs /etc/systemd/system
mount -t tmpfs tmpfs /lib/systemd/system
# What units depend on by themselves.
for target in sysinit basic network shutdown multi-user; do
  printf '[Unit]\nDefaultDependencies=no\n' > "/etc/systemd/system/$target.target"
done
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
if mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
else
  umount /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
export container=test
exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=no
