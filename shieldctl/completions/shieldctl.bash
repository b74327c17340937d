# shieldctl completion for bash; made by python -m shieldctl.completions
_shieldctl() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" path="" word skip=0
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if ((skip)); then skip=0; continue; fi
        case "$word" in --socket) skip=1 ;; -*) ;; *) path="$path $word" ;; esac
    done
    COMPREPLY=()
    case "$path" in
    " threats list"*)
        case "$previous" in
        --state)
            COMPREPLY=($(compgen -W "open resolved" -- "$current")); return ;;
        --severity)
            COMPREPLY=($(compgen -W "informational low medium high critical" -- "$current")); return ;;
        --since) return ;;
        -n|--lines) return ;;
        esac
        COMPREPLY=($(compgen -W "--state --severity --since -n --lines --json -h --help" -- "$current")) ;;
    " threats show"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " threats explain"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " threats resolve"*)
        case "$previous" in
        --verdict)
            COMPREPLY=($(compgen -W "malicious benign" -- "$current")); return ;;
        --note) return ;;
        esac
        COMPREPLY=($(compgen -W "--verdict --note --json -h --help" -- "$current")) ;;
    " threats release"*)
        case "$previous" in
        --reason) return ;;
        esac
        COMPREPLY=($(compgen -W "--reason -y --yes --json -h --help" -- "$current")) ;;
    " threats kill"*)
        case "$previous" in
        --reason) return ;;
        esac
        COMPREPLY=($(compgen -W "--reason -y --yes --json -h --help" -- "$current")) ;;
    " threats analyze"*)
        case "$previous" in
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " files seal"*)
        case "$previous" in
        --why) return ;;
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "-r --recursive --why --dry-run --json -h --help" -- "$current")) ;;
    " files open"*)
        case "$previous" in
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "-r --recursive --dry-run --json -h --help" -- "$current")) ;;
    " files cat"*)
        case "$previous" in
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "-h --help" -- "$current")) ;;
    " files status"*)
        case "$previous" in
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "-r --recursive --verify --json -h --help" -- "$current")) ;;
    " files verify"*)
        case "$previous" in
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "--all -r --recursive --json -h --help" -- "$current")) ;;
    " files list"*)
        case "$previous" in
        --under)
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "--under --json -h --help" -- "$current")) ;;
    " quarantine list"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " quarantine show"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " quarantine add"*)
        case "$previous" in
        --why) return ;;
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "--why --dry-run --json -h --help" -- "$current")) ;;
    " quarantine restore"*)
        case "$previous" in
        --to)
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "--to --dry-run -y --yes --json -h --help" -- "$current")) ;;
    " quarantine purge"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--dry-run -y --yes --json -h --help" -- "$current")) ;;
    " restore plan"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " restore run"*)
        case "$previous" in
        --take)
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "--take --dry-run -y --yes --json -h --help" -- "$current")) ;;
    " restore status"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " versions list"*)
        case "$previous" in
        -n|--lines) return ;;
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "-n --lines --json -h --help" -- "$current")) ;;
    " versions restore"*)
        case "$previous" in
        --at) return ;;
        --to)
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "--at --to --dry-run -y --yes --json -h --help" -- "$current")) ;;
    " keys list"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " keys rotate"*)
        case "$previous" in
        --purpose)
            COMPREPLY=($(compgen -W "files quarantine preserve audit" -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "--purpose --due --dry-run -y --yes --json -h --help" -- "$current")) ;;
    " keys rewrap"*)
        case "$previous" in
        --purpose)
            COMPREPLY=($(compgen -W "files quarantine preserve audit" -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "--purpose --revoke --dry-run -y --yes --json -h --help" -- "$current")) ;;
    " keys providers"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " policy show"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--card --json -h --help" -- "$current")) ;;
    " policy evaluate"*)
        case "$previous" in
        --trace)
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "--trace --json -h --help" -- "$current")) ;;
    " config show"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " config check"*)
        case "$previous" in
        esac
        if [[ "$current" != -* ]]; then
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return
        fi
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " status"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " doctor"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " ping"*)
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "--json -h --help" -- "$current")) ;;
    " wait"*)
        case "$previous" in
        --timeout) return ;;
        esac
        COMPREPLY=($(compgen -W "--timeout --json -h --help" -- "$current")) ;;
    " events"*)
        case "$previous" in
        --since) return ;;
        -n|--lines) return ;;
        --kind)
            COMPREPLY=($(compgen -W "create write delete rename attrib make-dir remove-dir rename-dir overflow" -- "$current")); return ;;
        --action)
            COMPREPLY=($(compgen -W "allow alert seal quarantine contain" -- "$current")); return ;;
        --under)
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "-f --follow --since -n --lines --kind --action --under --json -h --help" -- "$current")) ;;
    " alerts"*)
        case "$previous" in
        --since) return ;;
        -n|--lines) return ;;
        --severity)
            COMPREPLY=($(compgen -W "informational low medium high critical" -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "-f --follow --since -n --lines --severity --json -h --help" -- "$current")) ;;
    " drill"*)
        case "$previous" in
        --files) return ;;
        --tool) return ;;
        --seed) return ;;
        --in)
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "--files --tool --seed --in --keep --json -h --help" -- "$current")) ;;
    " threats")
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "list show explain resolve release kill analyze -h --help" -- "$current")) ;;
    " files")
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "seal open cat status verify list -h --help" -- "$current")) ;;
    " quarantine")
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "list show add restore purge -h --help" -- "$current")) ;;
    " restore")
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "plan run status -h --help" -- "$current")) ;;
    " versions")
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "list restore -h --help" -- "$current")) ;;
    " keys")
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "list rotate rewrap providers -h --help" -- "$current")) ;;
    " policy")
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "show evaluate -h --help" -- "$current")) ;;
    " config")
        case "$previous" in
        esac
        COMPREPLY=($(compgen -W "show check -h --help" -- "$current")) ;;
    "")
        case "$previous" in
        --socket)
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;
        esac
        COMPREPLY=($(compgen -W "status doctor ping wait events alerts drill threats files quarantine restore versions keys policy config --socket --version -h --help" -- "$current")) ;;
    esac
}
complete -F _shieldctl shieldctl
