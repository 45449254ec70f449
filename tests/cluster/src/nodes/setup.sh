# The guest becomes a machine of its own, at every boot. It keeps what a node keeps on its disk.
name=$1 machine_id=$2 mac=$3 address=$4 gateway=$5 wire=$6

# As systemd leaves it: a pod may ask for mounts that come and go in the host's folders.
mount --make-rshared /
busybox hostname "$name"
echo "$name" > /etc/hostname
echo "$machine_id" > /etc/machine-id

modprobe -a virtio_blk virtio_net ext4
udevadm settle
disk=/var/lib/lab
mkdir -p "$disk"
mount -t ext4 /dev/vda "$disk"
for folder in /etc/cni /etc/zerobridge /opt/cni /var/lib/cni /var/lib/containerd /var/lib/kubelet /var/lib/zerobridge \
    /var/log/containers /var/log/pods; do
    mkdir -p "$disk$folder" "$folder"
    mount --bind "$disk$folder" "$folder"
done

management=
for link in /sys/class/net/*; do
    if [ "$(cat "$link/address")" = "$mac" ]; then
        management=${link##*/}
    fi
done
ip address replace "$address" dev "$management"
ip link set "$management" up
ip route replace default via "$gateway"
ip address replace "$wire" dev enp1s0
ip link set enp1s0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
