#!/bin/bash
# A short session that shows what policies/coding-agent.json does:
#
#     enforcer run --policy policies/coding-agent.json -- bash policies/demo.sh
#
# Nothing here does harm, even where nothing enforces. Exits 0 if all went as expected, else 1.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
wrong=0

# tell EXPECTED STATUS WHAT: one line, and counts what is not as expected.
tell() {
    local expected=$1 status=$2 what=$3 got=allowed
    case $status in
        0) ;;
        137) got='denied (killed before its first instruction)' ;;
        126 | 1) got='denied (operation not permitted)' ;;
        *) got="neither (status $status)" ;;
    esac
    if [[ $got == "$expected"* ]]; then
        echo "  ok     $what: $got"
    else
        echo "  WRONG  $what: expected $expected, got $got"
        wrong=1
    fi
}

# attempt EXPECTED COMMAND...: runs it in a shell of its own, whose report of a killed child is not shown. Of what it
# says only enforcer's own line is shown.
attempt() {
    local expected=$1 status said
    shift
    said=$( ("$@"; exit $?) 2>&1 >/dev/null)
    status=$?
    tell "$expected" "$status" "$*"
    grep '^enforcer: ' <<<"$said" | sed 's/^/         /'
}

# reach ADDRESS PORT: connects over TCP; only a refusal by the kernel counts as denied.
reach() {
    local said status=0
    said=$(LC_ALL=C timeout 3 bash -c "exec 3<>/dev/tcp/$1/$2" 2>&1) || status=$?
    case $said in
        *'Operation not permitted'* | *'Permission denied'*) status=1 ;;
        *) [[ $status == 0 ]] || status="$status: ${said##*: }" ;;
    esac
    tell denied "$status" "connect to $1 port $2"
}

echo 'Ordinary work is allowed:'
attempt allowed git --version
attempt allowed ls /
attempt allowed bash -c 'ls / | sort | head -n 3'

echo 'An exec that the policy denies, in whatever way it is started:'
if sudo=$(type -P sudo); then
    attempt denied "$sudo" -n true
    attempt denied env "$sudo" -n true
else
    echo '  skip   sudo: not installed'
fi
# A denied name that leads to a harmless program.
scratch=$(mktemp -d) || exit 1
trap 'rm -rf -- "$scratch"' EXIT
ln -s "$(type -P true)" "$scratch/mkfs.ext4"
attempt denied "$scratch/mkfs.ext4" disk.img
attempt denied bash -c "\"$scratch/mkfs.ext4\" disk.img; exit \$?"

echo 'An exec whose arguments a second thread rewrites meanwhile:'
if type -P python3 >/dev/null; then
    # `echo` under the name of a program whose `reboot` is denied: it prints what it was started with.
    # Each denial has a line on stderr, all alike: not shown.
    ln -s "$(type -P echo)" "$scratch/systemctl"
    if won=$(timeout 60 python3 "$here/demo-race.py" "$scratch/systemctl" 200 2>/dev/null); then
        echo "  ok     $won"
    else
        echo "  WRONG  ${won:-the race did not run}"
        wrong=1
    fi
else
    echo '  skip   python3: not installed'
fi

echo 'A connect to the address that hands out the credentials of a machine:'
reach 169.254.169.254 80
reach fd00:ec2::254 80

[[ $wrong == 0 ]] && echo 'All went as expected.' || echo 'Something did not go as expected.'
exit "$wrong"
