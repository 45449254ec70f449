#!/bin/busybox sh
# Mounts the host's root, read only below a tmpfs, and hands over to lab-guest.
# The kernel's command line says where: lab.guest=PROGRAM lab.modules=FOLDER

fail() {
    echo "lab: $* failed"
    busybox poweroff -f
}

value() {
    for word in $(busybox cat /proc/cmdline); do
        case "$word" in "$1="*) echo "${word#*=}" ;; esac
    done
}

export PATH=/bin
busybox mkdir -p /proc /sys /dev /lower /over /root
busybox mount -t proc proc /proc || fail "mount /proc"
busybox mount -t sysfs sysfs /sys || fail "mount /sys"
busybox mount -t devtmpfs devtmpfs /dev || fail "mount /dev"
guest=$(value lab.guest)
modules=$(value lab.modules)
for module in /modules/*.ko; do
    busybox insmod "$module" || fail "insmod $module"
done

busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /lower || fail "mount the host's root"
busybox mount -t tmpfs -o size=60% tmpfs /over || fail "mount a tmpfs"
busybox mkdir /over/upper /over/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/over/upper,workdir=/over/work overlay /root || fail "mount the overlay"
busybox mkdir -p /root/out /root/usr/lib/modules
busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none out /root/out || fail "mount /out"
busybox mount -o bind "/lower$modules" /root/usr/lib/modules || fail "bind the kernel's modules"
for folder in proc sys dev; do
    busybox mkdir -p "/root/$folder"
    busybox mount -o move "/$folder" "/root/$folder" || fail "move /$folder"
done

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec /bin/busybox switch_root /root "$guest" init
