# shellcheck shell=sh
# tests/cli/cases.sh - helpers for shell cases; source it, call them, end with finish.
#
#   expect CODE 'text of stdout or stderr' command args...
# runs the command and checks its exit code and that its output holds the text.

failed=0
passed=0

expect() {
    code=$1
    text=$2
    shift 2
    got=0
    output=$("$@" 2>&1 </dev/null) || got=$?
    if [ "$got" = "$code" ] && printf '%s\n' "$output" | grep -qF -- "$text"; then
        passed=$((passed + 1))
        return 0
    fi
    failed=$((failed + 1))
    echo "FAILED: $*"
    echo "  expected exit code $code, got $got; expected text: $text"
    printf '%s\n' "$output" | sed 's/^/  | /'
}

# refuse 'text' command args...: the output must not hold the text.
refuse() {
    text=$1
    shift
    output=$("$@" 2>&1 </dev/null) || true
    if printf '%s\n' "$output" | grep -qF -- "$text"; then
        failed=$((failed + 1))
        echo "FAILED: $* printed: $text"
        return 0
    fi
    passed=$((passed + 1))
}

# same WANT GOT 'what': the two must be equal.
same() {
    if [ "$1" = "$2" ]; then
        passed=$((passed + 1))
        return 0
    fi
    failed=$((failed + 1))
    echo "FAILED: $3 is $2, expected $1"
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
}
