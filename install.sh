#!/bin/sh
# Places PROGRAM into DIRECTORY under its own name and under the names of all its plugins, as hard links.
# Each is written beside and renamed: who executes it gets the old program or the new one, never half a file, and a name
# that was there is there at every moment. Other files of the directory stay as they are.
#
# usage: install.sh PROGRAM DIRECTORY
set -eu
program=$1
directory=$2

mkdir -p "$directory"
new=$directory/.underlay.new.$$
trap 'rm -f "$new" "$new".*' EXIT INT TERM
cp "$program" "$new"
chmod 755 "$new"
for name in underlay $("$program" --plugins); do
	ln -f "$new" "$new.$name"
	mv -fT "$new.$name" "$directory/$name"
done
