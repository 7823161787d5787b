"""OS users as whom programs of users run, and the folders that they may use."""

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from fractal_models.errors import ProfileError


@dataclass(frozen=True)
class Account:
    """An OS user, with its primary group."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> "Account":
        """The OS user of this name.

        Raises:
            ProfileError: there is no such OS user, or it is root.
        """
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise ProfileError(
                f"There is no OS user {name!r} on {os.uname().nodename}, as whom to run programs: "
                "make it, or name another one in the profile."
            ) from None
        if found.pw_uid == 0:
            raise ProfileError(
                f"Programs of users do not run as {name!r}, which is root: name another OS user in "
                "the profile."
            )
        return cls(name, found.pw_uid, found.pw_gid)

    def give(self, folder: Path) -> None:
        """Make a folder in which this OS user may write and which everybody may read.

        What is in the folder stays. If this process runs as root, this user becomes the folder's
        owner; otherwise the folder gets the user's group. A folder that the user owns already is
        not changed.

        Raises:
            ProfileError: this process may not do that.
        """
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        if folder.stat().st_uid == self.uid:
            return
        if os.geteuid() == 0:
            os.chown(folder, self.uid, self.gid)
        else:
            self.share(folder, 0o2775)

    def share(self, path: Path, mode: int) -> None:
        """Give a file or folder this OS user's group, and this mode.

        Raises:
            ProfileError: this process may not do that, or the group may have other members.
        """
        group = grp.getgrgid(self.gid)
        if group.gr_name != self.name:
            raise ProfileError(
                f"{path} is not opened to {self.name}: its group {group.gr_name!r} may have others "
                f"in it. Give it a group of its own (usermod --gid), or, if that is a folder of "
                f"tasks, make it its own: install -d -o {self.name} -m 0755 {path}"
            )
        if (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (self.gid, mode):
            return
        try:
            os.chown(path, -1, self.gid)
            path.chmod(mode)
        except PermissionError:
            server = pwd.getpwuid(os.geteuid()).pw_name
            raise ProfileError(
                f"{path} cannot be opened to {self.name}: make {server!r}, who runs this, a member "
                f"of its group (usermod --append --groups {group.gr_name} {server}), and start "
                "this again."
            ) from None
