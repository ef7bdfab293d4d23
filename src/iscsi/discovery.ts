import type { Identity, TargetDirectory } from './access.ts';
import { normalizeName } from './names.ts';
import { REJECT, type TextPair } from './text.ts';

/**
 * The answer to SendTargets (RFC 7143 Appendix C): only what is there for `identity`. `own` is the target of a normal session, null in a discovery
 * session. `addresses` are those of all portals that the initiator can use, each `host:port,tag`.
 *
 * A normal session may ask for `All` only in discovery, says the RFC; one that does so nevertheless is told of its own target, as if it had asked with an
 * empty value: it learns nothing that it does not know, and initiators that check a session in this way go on.
 */
export function sendTargets(
  value: string,
  own: string | null,
  identity: Identity,
  directory: TargetDirectory,
  addresses: readonly string[],
): TextPair[] {
  const names: string[] = [];
  if (value === 'All') {
    if (own !== null) names.push(own);
    else names.push(...directory.list(identity));
  } else if (value === '') {
    if (own === null) return [{ key: 'SendTargets', value: REJECT }];
    names.push(own);
  } else {
    const name = normalizeName(value);
    if (name === null) return [{ key: 'SendTargets', value: REJECT }];
    if ((own === null || own === name) && directory.find(name, identity) !== undefined) names.push(name);
  }
  const answers: TextPair[] = [];
  for (const name of names) {
    answers.push({ key: 'TargetName', value: name });
    for (const value of addresses) answers.push({ key: 'TargetAddress', value });
  }
  return answers;
}
