import type { ServerMessage } from '../daemon/control-messages.ts';
import type { TcmuDeviceMessage, TcmuRefusalMessage } from '../daemon/tcmu-messages.ts';

/** What `pool status` says about LIO's devices. */

export function describeTcmu({ tcmu, tcmuDevices }: ServerMessage): string {
  if (!tcmu) return 'no';
  if (tcmuDevices?.answersAwaited === false) return 'yes, beside another handler: LIO shows no refusals';
  return 'yes';
}

export function describeDevice(device: TcmuDeviceMessage): string {
  const { backstore, volume, state, problem, inFlight, commands, aborts, refused, minor } = device;
  const where = `${backstore} on ${volume} (uio${minor})`;
  if (state !== 'serving') return `${where}: ${state}: ${problem ?? 'see the log'}`;
  const counts = [`${commands} commands`, `${inFlight} in flight`];
  if (aborts > 0) counts.push(`${aborts} aborted`);
  if (refused > 0) counts.push(`${refused} unreadable`);
  return `${where}: serving, ${counts.join(', ')}`;
}

export function describeRefusal({ backstore, action, reason, secondsAgo }: TcmuRefusalMessage): string {
  return `to ${action} ${backstore}, ${describeAge(secondsAgo)} ago: ${reason}`;
}

function describeAge(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

/** What to do about devices that do not serve; null when all do. */
export function adviceForDevices(server: ServerMessage | null): string | null {
  const states = (server?.tcmuDevices?.devices ?? []).map(({ state }) => state);
  if (states.includes('failed')) {
    return '\nInitiators of a failed backstore are answered BUSY and try again: see the log, then start the server again.';
  }
  if (states.includes('unserved')) {
    return '\nCommands to an unserved backstore wait. It is served within seconds once the reason is gone; else delete it with targetcli.';
  }
  return null;
}
