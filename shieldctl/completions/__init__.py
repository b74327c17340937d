"""Shell completion as static files: no program runs while an administrator presses tab.

`python -m shieldctl.completions` writes `shieldctl.bash`, `_shieldctl` (zsh) and `shieldctl.fish` beside this module
from the command tree; a test compares. Choices are those of a metavar such as
`open|resolved`. Words are our own (names of commands and options), so only the help texts need quoting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import typer

from shieldctl.app import build

#: What an option or argument takes, by its metavar: files are completed by the shell.
FILES: Final = ("PATH", "PATH…", "DIR", "[FILE]", "[PATH…]")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `--name`, `-n`; `value` is empty for a switch, `file` where the shell completes names."""

    names: tuple[str, ...]
    help: str
    value: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One command: the words that lead to it, its options, its subcommands with their help."""

    words: tuple[str, ...]
    options: tuple[Option, ...]
    children: tuple[tuple[str, str], ...]
    files: bool


def tree() -> list[Node]:
    """All commands, the root first, groups before what is in them."""
    return list(_walk((), typer.main.get_command(build())))


def _walk(words: tuple[str, ...], command: Any) -> Iterator[Node]:
    children: dict[str, Any] = getattr(command, "commands", {})
    options = [_option(one) for one in command.params if one.param_type_name == "option" and not one.hidden]
    options.append(Option(("-h", "--help"), "Show help and exit.", "", ()))
    files = any(one.param_type_name == "argument" and one.metavar in FILES for one in command.params)
    listed = tuple((name, child.get_short_help_str(80).rstrip(".")) for name, child in children.items())
    yield Node(words, tuple(options), listed, files)
    for name, child in children.items():
        yield from _walk((*words, name), child)


def _option(parameter: Any) -> Option:
    metavar = parameter.metavar or ""
    choices = tuple(metavar.split("|")) if "|" in metavar else ()
    value = "" if parameter.is_flag else ("file" if metavar in FILES else "value")
    names = tuple(sorted((*parameter.opts, *parameter.secondary_opts), key=len))
    return Option(names, (parameter.help or "").split(".")[0], value, choices)


def bash() -> str:
    """For bash-completion."""
    lines = ["# shieldctl completion for bash; made by python -m shieldctl.completions", "_shieldctl() {"]
    lines += [
        '    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" path="" word skip=0',
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        "        if ((skip)); then skip=0; continue; fi",
        '        case "$word" in --socket) skip=1 ;; -*) ;; *) path="$path $word" ;; esac',
        "    done",
        "    COMPREPLY=()",
        '    case "$path" in',
    ]
    nodes = tree()
    # the longest first: what follows a command are its arguments
    for node in sorted(nodes, key=lambda one: -len(one.words)):
        pattern = f'" {" ".join(node.words)}"*' if node.words else "*"
        if node.children and node.words:
            pattern = f'" {" ".join(node.words)}"'
        elif not node.words:
            pattern = '""'
        lines.append(f"    {pattern})")
        lines.append('        case "$previous" in')
        for option in node.options:
            if option.choices:
                lines.append(f"        {'|'.join(option.names)})")
                lines.append(
                    f'            COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$current")); return ;;'
                )
            elif option.value == "file":
                lines.append(f"        {'|'.join(option.names)})")
                lines.append('            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return ;;')
            elif option.value:
                lines.append(f"        {'|'.join(option.names)}) return ;;")
        lines.append("        esac")
        words = " ".join([*(name for name, _ in node.children), *(name for one in node.options for name in one.names)])
        if node.files:
            lines.append('        if [[ "$current" != -* ]]; then')
            lines.append('            compopt -o filenames; COMPREPLY=($(compgen -f -- "$current")); return')
            lines.append("        fi")
        lines.append(f'        COMPREPLY=($(compgen -W "{words}" -- "$current")) ;;')
    lines += ["    esac", "}", "complete -F _shieldctl shieldctl"]
    return "\n".join(lines) + "\n"


def zsh() -> str:
    """For zsh, to be found in `fpath` as `_shieldctl`."""
    lines = ["#compdef shieldctl", "# made by python -m shieldctl.completions", ""]
    for node in tree():
        name = "_".join(("_shieldctl", *node.words))
        lines.append(f"{name}() {{")
        if node.children:
            lines += ["    local context state line", "    local -a commands", "    commands=("]
            lines += [f"        '{child}:{_plain(text)}'" for child, text in node.children]
            lines += ["    )"]
        lines.append("    _arguments -C \\")
        lines += [f"        {_zsh_option(option)} \\" for option in node.options]
        if node.children:
            lines += ["        '1: :->command' \\", "        '*:: :->argument'", "    case $state in"]
            lines += ["    command) _describe command commands ;;", "    argument)", "        case $line[1] in"]
            lines += [f"        {child}) {name}_{child} ;;" for child, _ in node.children]
            lines += ["        esac ;;", "    esac"]
        else:
            lines.append("        '*:file:_files'" if node.files else "        '*: :'")
        lines += ["}", ""]
    lines.append('_shieldctl "$@"')
    return "\n".join(lines) + "\n"


def _zsh_option(option: Option) -> str:
    help_text = _plain(option.help)
    action = ""
    if option.choices:
        action = f":value:({' '.join(option.choices)})"
    elif option.value == "file":
        action = ":file:_files"
    elif option.value:
        action = ":value: "
    if len(option.names) > 1:
        return f"'({' '.join(option.names)})'{{{','.join(option.names)}}}'[{help_text}]{action}'"
    return f"'{option.names[0]}[{help_text}]{action}'"


def fish() -> str:
    """For fish."""
    lines = [
        "# shieldctl completion for fish; made by python -m shieldctl.completions",
        "function __shieldctl_at",
        "    set -l path",
        "    set -l skip 0",
        "    for word in (commandline -opc)[2..-1]",
        "        if test $skip = 1",
        "            set skip 0",
        "        else if test $word = --socket",
        "            set skip 1",
        "        else if not string match -q -- '-*' $word",
        "            set -a path $word",
        "        end",
        "    end",
        '    test "$path" = "$argv"; or begin',
        '        test (count $argv) -gt 1; and string match -q -- "$argv *" "$path"',
        "    end",
        "end",
        "complete -c shieldctl -f",
    ]
    for node in tree():
        at = f"-n '__shieldctl_at {' '.join(node.words)}'" if node.words else "-n '__shieldctl_at'"
        lines += [f"complete -c shieldctl {at} -a {name} -d '{_plain(text)}'" for name, text in node.children]
        for option in node.options:
            names = " ".join(f"-s {one[1:]}" if len(one) == 2 else f"-l {one[2:]}" for one in option.names)
            value = ""
            if option.choices:
                value = f" -x -a '{' '.join(option.choices)}'"
            elif option.value == "file":
                value = " -r -F"
            elif option.value:
                value = " -x"
            lines.append(f"complete -c shieldctl {at} {names}{value} -d '{_plain(option.help)}'")
        if node.files:
            lines.append(f"complete -c shieldctl {at} -F")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Help without what a shell would read."""
    return text.replace("'", "").replace("[", "(").replace("]", ")").replace(":", ",")


FILES_MADE: Final = {"shieldctl.bash": bash, "_shieldctl": zsh, "shieldctl.fish": fish}
