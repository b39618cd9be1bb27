#!/bin/sh
# tests/cli/test_install_deps.sh - what cluster/install-deps does on machines that lack packages.
#
# dpkg-query, apt-get, sudo, id and fetch-vocab are stand-ins: nothing is installed or downloaded.
set -eu
# shellcheck source-path=SCRIPTDIR source=cases.sh
. "$(dirname "$0")/cases.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/dreamrun_cli.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/cluster"
cp "$(dirname "$0")/../../cluster/install-deps" "$work/cluster/"

# stand_in PATH: a script from stdin
stand_in() {
    cat >"$1"
    chmod +x "$1"
}
stand_in "$work/bin/dpkg-query" <<END
#!/bin/sh
for package; do :; done
if grep -qx "\$package" "$work/missing"; then exit 1; fi
printf installed
END
stand_in "$work/bin/apt-get" <<END
#!/bin/sh
echo "apt-get \$*"
case " \$* " in *" install "*) [ -e "$work/broken" ] || : >"$work/missing" ;; esac
END
stand_in "$work/bin/id" <<END
#!/bin/sh
cat "$work/uid"
END
stand_in "$work/bin/sudo" <<END
#!/bin/sh
[ -e "$work/sudo_works" ] || exit 1
shift
echo "sudo"
exec "\$@"
END
stand_in "$work/cluster/fetch-vocab" <<END
#!/bin/sh
echo "vocabulary to \$1"
END
run() {
    PATH="$work/bin:$PATH" "$work/cluster/install-deps" "$@"
}
lack() {
    printf '%s\n' "$@" >"$work/missing"
}

# --- everything there: no apt-get ---
echo 1000 >"$work/uid"
: >"$work/missing"
expect 0 'bpe_simple_vocab_16e6.txt.gz' run
refuse 'apt-get' run
DR_VOCAB=/elsewhere/vocab expect 0 'vocabulary to /elsewhere/vocab' run

# --- something missing, as a user: one line to run, nothing done ---
lack libpng-dev cmake
expect 69 'sudo apt-get update && sudo apt-get install -y --no-install-recommends cmake libpng-dev' run
refuse 'vocabulary' run
: >"$work/sudo_works"
expect 0 'sudo' run
same '' "$(cat "$work/missing")" 'what is missing after sudo'
rm "$work/sudo_works"

# --- as root ---
echo 0 >"$work/uid"
lack libpng-dev
expect 0 'install --no-install-recommends libpng-dev' run
lack shellcheck
refuse 'apt-get' run
expect 0 'install --no-install-recommends shellcheck' run --tests
lack cmake
: >"$work/broken"
expect 69 'apt-get did not install cmake' run

# --- usage ---
expect 64 "found '--test', expected nothing or --tests" run --test
finish
